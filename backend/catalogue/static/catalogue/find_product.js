// A field that takes a product's SKU: while a name, SKU, GTIN or brand is typed, its list offers the products.
document.addEventListener("input", async (event) => {
  const field = event.target.closest("[data-find]");
  if (!field) return;
  const term = field.value.trim();
  if (term.length < 2) return;
  const response = await fetch(`${field.dataset.find}?term=${encodeURIComponent(term)}`).catch(() => null);
  if (!response || !response.ok || response.redirected || field.value.trim() !== term) return;
  const { products } = await response.json();
  field.list.replaceChildren(
    ...products.map(({ sku, name }) => {
      const option = document.createElement("option");
      option.value = sku;
      option.label = `${name}, ${sku}`;
      return option;
    }),
  );
});
