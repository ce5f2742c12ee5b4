"""What is measured, as it is kept: outcomes, records, the store, submissions, expected values. No torch."""
