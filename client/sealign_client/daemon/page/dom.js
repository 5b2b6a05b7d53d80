// Elements by id, and elements made of text alone: nothing on this page is ever read as HTML.

export const find = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function show(id, visible = true) {
  find(id).hidden = !visible;
}

export function notify(message, kind = "bad") {
  const notice = find("notice");
  notice.hidden = !message;
  notice.dataset.kind = kind;
  notice.textContent = message;
}

// Names, shares between 0 and 1, and how the values read.
export function fillBars(list, entries) {
  list.replaceChildren(
    ...entries.map(({ name, share, value }) => {
      const fill = make("span", { className: "fill" });
      fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
      const track = make("span", { className: "track", ariaHidden: "true" }, fill);
      return make("li", {}, make("span", { className: "name" }, name), track, make("span", { className: "value" }, value));
    }),
  );
}

// The tasks to choose among; nothing is shown where there is no choice.
export function fillTasks(id, names) {
  const select = find(id);
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
  for (const part of [id, `${id}-label`]) show(part, names.length > 1);
}

export const percent = (share) => `${(share * 100).toFixed(share > 0.9995 || share < 0.0995 ? 2 : 1)} %`;

export const number = (value) => value.toLocaleString("en");

export function bytes(count) {
  if (count < 1024) return `${count} bytes`;
  return count < 1024 ** 2 ? `${(count / 1024).toFixed(1)} KB` : `${(count / 1024 ** 2).toFixed(1)} MB`;
}
