"""Reading tables: CSV and Parquet files, numbers and labels; errors name places and never values."""
