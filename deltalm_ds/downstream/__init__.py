"""Downstream tasks: public formats read into examples, and what each task does with them.

Needs neither torch nor deepspeed.
"""
