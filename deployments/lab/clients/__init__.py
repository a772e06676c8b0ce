"""What `writer.py` speaks to each database by; none imports another module of the lab."""
