"""From a query image to a basket: admission, the recognition itself, its answer, and what people correct."""
