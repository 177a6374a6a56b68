"""From images to features, from features to metrics, from metrics to a page.

encoders/      networks and functions that turn images into features
metrics/       metrics as functions of features: numpy and the standard library only
embed          writes the features of a source that are missing
features       FEATURES_DIR: files of features with what they depend on
fidelity       all metrics of two FEATURES_DIRs, overall and for each label
results        results.json: the schema, reading and writing it
report         results as one page
"""
