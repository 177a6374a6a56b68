"""Metrics of synthetic images, as functions of features: numpy and the standard library only.

    estimate      what each metric returns: value, standard error, interval, sample sizes, notes
    features      checks of arrays; rows in blocks
    moments       mean and covariance, merged from shards
    frechet       FD, the Frechet distance of two Gaussians
    pairs         one pass over all pairs of rows, in tiles, for the two modules below
    kernel        KID and CMMD
    neighbours    nearest neighbours, and who lies in whose ball
    distances     between training, synthetic and held-out rows, for the three modules of privacy below
    prdc          precision, recall, density, coverage
    combined      kernels and neighbours from one pass
    vendi         the Vendi score
    inception     the Inception Score, from logits
    alignment     image-text alignment and retrieval
    auroc         AUROC for each label
    memorisation  whether synthetic rows lie nearer to training rows than chance has it
    membership    whether synthetic rows tell training from held-out rows
    copying       the test C_T
    pixels        how far the two images of a pair are apart
    calibration   the closeness of pairs against that of real pairs
    classification  AUROC, average precision and F1 of trained classifiers, and paired differences
    text_scores   scores of reports against those of radiologists, as functions of sums; takes texts
    resampling    the bootstrap over patients, for functions of sums
    floor         a metric between two halves of the real set
    chexgenbench  the definitions of the CheXGenBench code

A metric takes arrays and returns an `Estimate`. It reads no files and caches nothing.
"""
