"""What a run will take: memory, communication, time. Formulas only; nothing runs, and nothing is measured."""
