"""The OpenKBP benchmark in parts: patients, records, verdicts, tables, pictures."""
