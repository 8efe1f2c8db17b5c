"""The report: one page, its figures and its numbers, about one run or several beside each other."""
