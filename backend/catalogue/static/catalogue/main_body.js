// The box of a picture's main body, set by mouse, touch or keyboard. The four number fields are what is saved.

for (const editor of document.querySelectorAll("[data-main-body]")) edit(editor);

function edit(editor) {
  const width = Number(editor.dataset.width);
  const height = Number(editor.dataset.height);
  const stage = editor.querySelector("[data-stage]");
  const frame = editor.querySelector("[data-box]");
  const size = editor.querySelector("[data-size]");
  const fields = [...editor.querySelectorAll("input[type=number]")];
  const smallest = Math.max(4, Math.min(width, height) / 100);
  const step = Math.max(1, Math.round(Math.max(width, height) / 200));
  const asLoaded = fields.map((field) => field.value);
  const readOnly = fields.some((field) => field.disabled || field.readOnly);

  editor.querySelector("[data-with-script]").hidden = false;
  fields.forEach((field) => field.addEventListener("input", show));
  editor.querySelector("[data-whole]").addEventListener("click", () => set([0, 0, width, height]));
  editor.querySelector("[data-undo]").addEventListener("click", () => {
    fields.forEach((field, index) => (field.value = asLoaded[index]));
    show();
  });
  show();
  if (readOnly) return;

  stage.addEventListener("pointerdown", startDrag);
  frame.addEventListener("keydown", moveByKey);

  function current() {
    const box = fields.map((field) => (field.value === "" ? NaN : Number(field.value)));
    return box.every(Number.isFinite) ? box : null;
  }

  function set(box) {
    fields.forEach((field, index) => (field.value = Math.round(box[index] * 10) / 10));
    show();
  }

  function show() {
    const box = current();
    frame.hidden = box === null;
    if (box === null) {
      size.textContent = "no box yet";
      return;
    }
    const [x1, y1, x2, y2] = box;
    frame.style.left = `${(100 * x1) / width}%`;
    frame.style.top = `${(100 * y1) / height}%`;
    frame.style.width = `${(100 * (x2 - x1)) / width}%`;
    frame.style.height = `${(100 * (y2 - y1)) / height}%`;
    const inside = x1 >= 0 && y1 >= 0 && x2 <= width && y2 <= height && x1 < x2 && y1 < y2;
    size.textContent = inside
      ? `${Math.round(x2 - x1)} x ${Math.round(y2 - y1)} of ${width} x ${height} pixels`
      : `not inside the picture of ${width} x ${height} pixels`;
    frame.classList.toggle("ck-wrong", !inside);
  }

  function pointAt(event) {
    const area = stage.getBoundingClientRect();
    return [
      clamp(((event.clientX - area.left) / area.width) * width, 0, width),
      clamp(((event.clientY - area.top) / area.height) * height, 0, height),
    ];
  }

  /** A handle drags its sides, the box's inside moves it, anywhere else draws anew. */
  function startDrag(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    const handle = event.target.dataset.handle;
    const before = current();
    const from = pointAt(event);
    const inside = event.target === frame;
    const change = (to) => {
      if (handle) return dragSides(before, handle, to);
      if (inside) return moveBy(before, to[0] - from[0], to[1] - from[1]);
      return draw(from, to);
    };
    const drag = (moved) => {
      const box = change(pointAt(moved));
      if (box) set(box);
    };
    stage.setPointerCapture(event.pointerId);
    stage.addEventListener("pointermove", drag);
    const stop = () => {
      stage.removeEventListener("pointermove", drag);
      frame.focus({ preventScroll: true });
    };
    stage.addEventListener("pointerup", stop, { once: true });
    stage.addEventListener("pointercancel", stop, { once: true });
  }

  function draw(from, to) {
    const box = [
      Math.min(from[0], to[0]), Math.min(from[1], to[1]),
      Math.max(from[0], to[0]), Math.max(from[1], to[1]),
    ];
    return box[2] - box[0] >= smallest && box[3] - box[1] >= smallest ? box : null;
  }

  function dragSides(box, handle, [x, y]) {
    const [x1, y1, x2, y2] = box;
    return [
      handle.includes("w") ? Math.min(x, x2 - smallest) : x1,
      handle.includes("n") ? Math.min(y, y2 - smallest) : y1,
      handle.includes("e") ? Math.max(x, x1 + smallest) : x2,
      handle.includes("s") ? Math.max(y, y1 + smallest) : y2,
    ];
  }

  function moveBy([x1, y1, x2, y2], right, down) {
    const dx = clamp(right, -x1, width - x2);
    const dy = clamp(down, -y1, height - y2);
    return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
  }

  function moveByKey(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const direction = arrows[event.key];
    const box = current();
    if (!direction || !box) return;
    event.preventDefault();
    const [dx, dy] = direction.map((one) => one * (event.altKey ? 1 : step));
    if (event.shiftKey) {
      const corner = [clamp(box[2] + dx, 0, width), clamp(box[3] + dy, 0, height)];
      set(dragSides(box, "se", corner));
    } else {
      set(moveBy(box, dx, dy));
    }
  }
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
