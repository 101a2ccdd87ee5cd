"""What training minimises, one file a family: classification, triplets, hashing, distillation, detection.

The maths of each loss is a plain function; a module of the same name beside it holds its settings and picks the
tensors out of what a model gave. Inputs in half precision are raised to float32 first, so a loss may be called
inside or outside automatic mixed precision. No loss knows of data, optimizers or processes.

- of an embedder: `forward(output: EmbedderOutput, labels) -> scalar`
- of a pair of embedders: `forward(student: EmbedderOutput, teacher: EmbedderOutput, labels) -> scalar`
- of the detector: `training.losses.detection.PicoDetLoss`
"""
