"""The retailer's catalogue: products, product sets, reference images, and their import. It knows no gallery."""
