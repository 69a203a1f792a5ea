"""What scripts/make_bench_pages.py is made of."""
