"""How close synthetic images are to the images that the generator was trained on.

privacy           privacy metrics of two or three FEATURES_DIRs
privacy_metrics   those of one encoder, with what each is compared with, and the closest pairs
privacy_meanings  what each of them tells
paired            each synthetic image against its training image
pairing           which training image that is, and the real pairs to compare with
paired_images     reads the images of pairs, each once
paired_meanings   the same of the metrics of pairs
reid              the network that re-identifies patients
"""
