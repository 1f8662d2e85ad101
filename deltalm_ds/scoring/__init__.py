"""How good texts are, by published metrics. Needs neither torch nor deepspeed."""
