"""Speed, as ratios measured in one run. Run all of it with `make bench`."""
