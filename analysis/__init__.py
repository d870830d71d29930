"""From results to tables: numbers are looked up by run, averaged over seeds, and never over unlike things."""
