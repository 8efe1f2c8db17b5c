"""What everything stands on: settings, records, errors, tables, text; nothing here knows of a run."""
