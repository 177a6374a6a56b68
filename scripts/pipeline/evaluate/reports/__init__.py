"""What models that write reports learn from synthetic images, and scores of texts.

reports          models that write reports, trained on real and synthetic images
report_runs      its training runs: a folder for each, with adapters and texts
report_model     image-text-to-text models of transformers: prompts, batches, decoding, LoRA
report_training  fine-tunes one with the Trainer of transformers; resumes
report_texts     TEXTS_CSV: what a model wrote beside what a radiologist wrote
report_scores    scores of texts with intervals, baselines and differences
report_meanings  the same of scores of reports
text_models      networks that read reports: RadGraph and CheXbert
"""
