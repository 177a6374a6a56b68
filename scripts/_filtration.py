"""How the images were filtered, in the words of the dataset's page."""

META_PROMPT = (
    "You are an expert radiologist and medical annotator. Your task is to assess the quality of an image given its "
    "description and classify the image as either 'High Quality', 'Medium Quality', or 'Low Quality'. Keep your "
    "responses limited to only these three options. If the image is not relevant to the description, respond with "
    "'Not Relevant'."
)
