"""Hugging Face models: loaded, shared and told apart.

``_models``
    Load, keep and share models, their tokenizers and configurations.
``_adapter_weights``
    Whether the weights of a PEFT adapter are safetensors.
``_geometry``
    What a configuration alone tells: layers, widths, limits.
``_identity``
    Which model it is, by its files or its hub commit.
"""
