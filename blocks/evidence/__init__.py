"""The evidence of a rehearsal: findings, uses, record."""
