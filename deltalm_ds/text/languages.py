"""Which names are languages: what tells `fr.txt` from `notes.txt` and `train.en` from `train.csv`."""

from __future__ import annotations

import re

# ISO 639-1 whole; of the three-letter codes those of Wikipedias and of the usual multilingual test sets,
# less those that are usual file extensions. Any three letters are taken with a script: hau_Latn.
_TWO_LETTERS = """
    aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee
    el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io
    is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn
    mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se
    sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo
    wa wo xh yi yo za zh zu
"""
_THREE_LETTERS = """
    ace acm acq aeb afr ajp aka amh ang apc ara arb ars ary arz asm ast awa ayr aze azb azj bar bcl bel bem
    ben bho bjn bod bos bua bug bul cat ceb ces chr cjk ckb cop crh csb cym dan deu dik diq dsb dyu dzo ell
    eng epo est eus ewe fao fas fij fil fin fon fra frr fur fuv gaz gla gle glg gom grc grn gsw guj hak hat
    hau haw heb hif hin hmn hne hrv hsb hun hye ibo ilo ind isl ita jav jbo jpn kaa kab kac kam kan kas kat
    kaz kbp kea khk khm kik kin kir kmb kmr knc kon kor krc ksh kur lad lao lav lez lfn lij lim lin lit lmo
    ltg ltz lua lug luo lus lvs lzh mag mai mal mar mfe mhr min mkd mlg mlt mni mon mos mri mrj msa mwl mya
    myv mzn nan nap nds nep nld nno nob non nor npi nso nus nya oci ori orm ory pag pam pan pap pbt pcd pes
    plt pms pnb pol por prs pus que quy rom ron rue rus sag sah san sat scn sco shn sin slk slv sma sme smj
    smn smo sms sna snd som sot spa sqi srd srp ssw stq sun swa swe swh szl tam taq tat tel tet tgk tgl tha
    tir tpi tsn tso tuk tum tur twi tyv tzm udm uig ukr umb urd uzb uzn vec vep vie vls war wol wuu xal xho
    xmf ydd yid yor yue zea zho zsm zul
"""
# Chinese and its kin, Japanese, Thai, Lao, Khmer, Burmese, Shan, Tibetan, Dzongkha.
_WITHOUT_SPACES = """
    zh zho yue wuu gan hsn lzh cjy ja jpn th tha lo lao km khm my mya shn bo bod dz dzo
"""
_KNOWN = frozenset(_TWO_LETTERS.split() + _THREE_LETTERS.split())
_CODE = re.compile(
    r"(?P<base>[a-z]{2,3})(?P<script>[-_][A-Z][a-z]{3})?(?P<region>[-_](?:[A-Z]{2}|[0-9]{3}))?(?:_rom|_zaw)?"
)
_PRIVATE_USE = re.compile(r"q[a-t][a-z]")

ADVICE = "a language is an ISO 639 code such as fr, zh-Hant or hau_Latn (qaa to qtz are free for others)"


def is_language(name: str) -> bool:
    """Whether `name` is a language code: ISO 639, bare or with script and region (zh-Hant, pt-BR, en_XX)."""
    match = _CODE.fullmatch(name)
    if match is None:
        return False
    base = match["base"]
    known = base in _KNOWN or _PRIVATE_USE.fullmatch(base) is not None
    return known or (len(base) == 3 and match["script"] is not None)


def is_private(language: str) -> bool:
    """Whether a language code is of those that everybody may use for anything, qaa to qtz."""
    return _PRIVATE_USE.match(language) is not None


def is_written_with_spaces(name: str) -> bool:
    """Whether white space parts the words of a language, by its code: not in zh, ja, th; but in ja_Latn."""
    match = _CODE.fullmatch(name)
    if match is None or match["base"] not in _WITHOUT_SPACES.split():
        return True
    return (match["script"] or "")[1:] == "Latn" or name.endswith("_rom")
