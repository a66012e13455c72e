"""From finished runs to one report: tables, comparison, the paper's numbers, figure, page."""
