"""All metrics of two FEATURES_DIRs, overall and for each label.

fidelity               all metrics of two FEATURES_DIRs, overall and for each label
protocol_sound         the metrics of one encoder, with intervals and floors
protocol_chexgenbench  the metrics of one encoder as the CheXGenBench code defines them
frd                    radiomics features: FRD
"""
