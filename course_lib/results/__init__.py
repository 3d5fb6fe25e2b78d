"""What was measured, and how sure may we be? Records, stored tables, intervals, the race's standings."""

from course_lib.results.records import as_json, load_results, machine, markdown, record, store, table

__all__ = ["as_json", "load_results", "machine", "markdown", "record", "store", "table"]
