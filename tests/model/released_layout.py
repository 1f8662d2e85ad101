"""The names of the released file, written out independently of the package's own conversion."""

ATTENTION = ("query", "key", "value", "output")
RELEASED = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}


def released_names(num_encoder_layers: int, num_decoder_blocks: int) -> dict[str, str]:
    """Our parameter name → the released name."""
    names = {"embedding.weight": "src_embedding.embed_tokens.weight"}
    for ours, theirs in (("encoder", "src_embedding"), ("decoder", "tgt_embedding")):
        names[f"{ours}.positions.weight"] = f"{theirs}.embed_positions.weight"
        for kind in ("weight", "bias"):
            names[f"{ours}.embedding_norm.{kind}"] = f"{theirs}.emb_layer_norm.{kind}"

    def sublayer(ours: str, theirs: str, norm: str, parts: dict[str, str]) -> None:
        for kind in ("weight", "bias"):
            names[f"{ours}.norm_{kind}"] = f"{norm}.{kind}"
            for part, name in parts.items():
                names[f"{ours}.{part}_{kind}"] = f"{theirs}.{name}.{kind}"

    fc = {"fc1": "fc1", "fc2": "fc2"}
    for n in range(num_encoder_layers):
        ours, theirs = f"encoder.layers.{n}", f"encoder.layers.{n}"
        sublayer(f"{ours}.attention", f"{theirs}.self_attn", f"{theirs}.self_attn_layer_norm", RELEASED)
        sublayer(f"{ours}.feed_forward", f"{theirs}.ffn", f"{theirs}.final_layer_norm", fc)
    for n in range(num_decoder_blocks):
        ours, theirs = f"decoder.blocks.{n}", f"decoder.layers.{n}"
        sublayer(f"{ours}.self_attention", f"{theirs}.self_attn", f"{theirs}.self_attn_layer_norm", RELEASED)
        sublayer(f"{ours}.first_feed_forward", f"{theirs}.ffn_1", f"{theirs}.ffn_layer_norm", fc)
        sublayer(
            f"{ours}.cross_attention", f"{theirs}.encoder_attn", f"{theirs}.encoder_attn_layer_norm", RELEASED
        )
        sublayer(f"{ours}.second_feed_forward", f"{theirs}.ffn_2", f"{theirs}.final_layer_norm", fc)
    return names
