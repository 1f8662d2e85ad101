"""Whether the machines of a job are fit for it: measured on every rank, compared, the bad node named."""
