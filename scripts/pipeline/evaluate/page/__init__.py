"""Results as one page.

report            results as one page
page_compared     on the page: what was compared
page_leaderboard  a row for each of the results, a column for each of a few metrics
page_tables       all results side by side, and every number
page_fidelity     section `fidelity`
page_privacy      section `privacy`
page_sections     what sections other than `fidelity` share: cards and charts of labels
glossary          what each metric of all sections tells
side_by_side      several results: what may share a table, which values differ
charts            values with intervals and what they compare with, as inline SVG
pictures          the images that decide metrics, from their sources
published         the published values of CheXGenBench
"""
