"""Hugging Face models: loaded, shared and told apart.

``_models``
    Load, keep and share models, their tokenizers and configurations.
``_adapter_weights``
    Whether the weights of a PEFT adapter are safetensors.
``_geometry``
    What a configuration alone tells: layers, widths, limits.
``_missing``
    Weights that a model's files lack.
``_adapters``, ``_adapter_files`` and ``_wholes``
    PEFT adapters: applied, read, and the models that they were trained on.
``_tekken``
    Tokenizers that come as Mistral's own file.
``_identity``
    Which model it is, by its files or its hub commit.
``_shelf`` and ``_absence``
    What is kept, and what is said of files that are not here.
"""
