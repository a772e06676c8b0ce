"""The program that runs on hosts: one job from standard input, events on standard output."""
