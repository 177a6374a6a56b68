"""From images to features, from features to metrics, from metrics to a page.

encoders/              networks and functions that turn images into features
metrics/               metrics as functions of features: numpy and the standard library only
embed                  embeds the images of a source that have no features yet
encoding               asks encoders about rows: reads and decodes each image once
output                 which files of FEATURES_DIR are wanted, what is known, writing them
features               FEATURES_DIR: files of features with what they depend on
fidelity               all metrics of two FEATURES_DIRs, overall and for each label
comparison             which rows are compared, and whether they may be
privacy                privacy metrics of two or three FEATURES_DIRs
privacy_metrics        those of one encoder, with what each is compared with, and the closest pairs
privacy_meanings       what each of them tells
protocol_sound         the metrics of one encoder, with intervals and floors
protocol_chexgenbench  the metrics of one encoder as the CheXGenBench code defines them
utility                classifiers trained on real and synthetic images, tested on real ones
utility_meanings       what its metrics tell
probe                  logistic regressions on features
classifier             what is asked of a classifier that learns from a split
settings               splits of the utility experiments: patients on one side, twins too
backbone               classifiers fine-tuned on the images of a setting: networks of timm
training               fine-tunes a network with accelerate; resumes
decoded                images decoded once, at the size that a network takes
reports                models that write reports, trained on real and synthetic images
report_runs            its training runs: a folder for each, with adapters and texts
report_model           image-text-to-text models of transformers: prompts, batches, decoding, LoRA
report_training        fine-tunes one with the Trainer of transformers; resumes
report_texts           TEXTS_CSV: what a model wrote beside what a radiologist wrote
report_scores          scores of texts with intervals, baselines and differences
text_models            networks that read reports: RadGraph and CheXbert
frd                    radiomics features: FRD
paired                 each synthetic image against its training image
pairing                which training image that is, and the real pairs to compare with
paired_images          reads the images of pairs, each once
reid                   the network that re-identifies patients
results                RESULTS_JSON: a section for each command; reading and writing it
results_fidelity       its section of `fidelity`
results_section        its other sections
results_parts          what the sections share
results_table          results as tables for a terminal
report                 results as one page
page_compared          on the page: what was compared
page_leaderboard       a row for each of the results, a column for each of a few metrics
page_tables            all results side by side, and every number
page_fidelity          section `fidelity`
page_privacy           section `privacy`
page_sections          what sections other than `fidelity` share: cards and charts of labels
meanings               what each metric of `fidelity` tells
paired_meanings        the same of the metrics of pairs
report_meanings        the same of scores of reports
glossary               what each metric of all sections tells
side_by_side           several results: what may share a table, which values differ
charts                 values with intervals and what they compare with, as inline SVG
pictures               the images that decide metrics, from their sources
published              the published values of CheXGenBench
"""
