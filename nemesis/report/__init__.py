"""Build one report from finished runs: tables, comparisons, the paper's numbers, figure, page."""
