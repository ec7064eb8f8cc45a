"""Documents from rows: tables, verdicts, figures, README, REPORT."""
