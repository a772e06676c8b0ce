"""Where backup sets are kept, and what kind of tool wrote them."""
