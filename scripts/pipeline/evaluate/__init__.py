"""From images to features, from features to metrics, from metrics to a page: a package for each command.

embedding/  images to features
encoders/   networks and functions that do so
fidelity/   how close synthetic images are to real ones
privacy/    how close they are to the images that the generator was trained on
utility/    what classifiers learn from them
reports/    what models that write reports learn from them
results/    results.json: a section for each command
page/       results as one page
metrics/    metrics as functions of features: numpy and the standard library only

run         all of it in one command
features    FEATURES_DIR: files of features with what they depend on
comparison  which rows are compared, and whether they may be
settings    splits of the utility experiments: patients on one side, twins too
names       file names of synthetic images, and the training images that they name
meanings    what a metric tells; those of `fidelity`
"""
