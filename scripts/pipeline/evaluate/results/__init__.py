"""RESULTS_JSON: a section for each command.

results           RESULTS_JSON: a section for each command; reading and writing it
results_fidelity  its section of `fidelity`
results_section   its other sections
results_parts     what the sections share
results_table     results as tables for a terminal
"""
