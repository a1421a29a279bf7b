"""Reads tables: CSV and Parquet files, numbers and labels. Errors name places, never values."""
