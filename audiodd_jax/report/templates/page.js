"use strict";
const root = document.documentElement;
root.classList.add("js");

// The chosen theme; a page opened from a file may have no access to storage.
const storedTheme = {
  read() { try { return localStorage.getItem("theme"); } catch { return null; } },
  write(theme) { try { localStorage.setItem("theme", theme); } catch { /* not stored */ } },
};
if (storedTheme.read()) root.dataset.theme = storedTheme.read();

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function switchTheme(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const show = () => button.setAttribute("aria-pressed", isDark());
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    storedTheme.write(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}

// Hides panels whose content is all hidden.
function hideEmpty() {
  for (const group of all("[data-group]")) {
    const parts = [["[data-run]", "off"], ["[data-class]", "unmatched"]];
    const isEmpty = parts.some(([selector, mark]) => {
      const elements = all(selector, group);
      return elements.length && elements.every((part) => part.classList.contains(mark));
    });
    group.classList.toggle("empty", isEmpty);
  }
}

function filterClasses(select) {
  select.addEventListener("change", () => {
    for (const part of all("[data-class]")) {
      part.classList.toggle("unmatched", select.value !== "" && part.dataset.class !== select.value);
    }
    hideEmpty();
  });
}

function chooseRuns() {
  const boxes = all("[data-shows]");
  const show = () => {
    for (const box of boxes) {
      box.closest("tr").classList.toggle("dimmed", !box.checked);
      for (const part of all(`[data-run="${box.dataset.shows}"]`)) {
        part.classList.toggle("off", !box.checked);
      }
    }
    hideEmpty();
  };
  for (const box of boxes) box.addEventListener("change", show);
  for (const button of all("[data-check]")) {
    button.addEventListener("click", () => {
      for (const box of boxes) box.checked = button.dataset.check === "all";
      show();
    });
  }
}

// Sorts in descending order, then in ascending order; unknown values always come last.
function sortBy(head) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const order = head.ariaSort === "descending" ? "ascending" : "descending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const column = [...head.parentNode.children].indexOf(head);
    const sign = order === "ascending" ? 1 : -1;
    const rank = (row) => {
      const value = row.children[column].dataset.value;
      return value === "" ? Number.MAX_VALUE : sign * Number(value);
    };
    const body = head.closest("table").tBodies[0];
    body.append(...[...body.rows].sort((a, b) => rank(a) - rank(b)));
  });
}

// Turns a spectrogram into a button that plays its sound.
function playable(picture) {
  const audio = picture.nextElementSibling;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "spectrogram";
  button.setAttribute("aria-label", `play ${picture.dataset.name}`);
  const sign = document.createElement("span");
  sign.setAttribute("aria-hidden", "true");
  button.append(...picture.childNodes, sign);
  picture.replaceWith(button);
  audio.controls = false;
  const show = (on) => {
    button.classList.toggle("playing", on);
    button.setAttribute("aria-pressed", on);
    sign.textContent = on ? "\u25A0" : "\u25B6";
  };
  show(false);
  audio.addEventListener("pause", () => show(false));
  audio.addEventListener("play", () => show(true));
  button.addEventListener("click", () => {
    const starts = audio.paused;
    stopAll();
    if (starts) {
      audio.currentTime = 0;
      audio.play().catch(() => show(false));
    }
  });
}

function stopAll() {
  for (const audio of all("audio")) if (!audio.paused) audio.pause();
}

// Arrow keys move between spectrograms; Enter and the space bar already press a button.
function followKeys(event) {
  if (event.key === "Escape") stopAll();
  const current = event.target.closest?.("button.spectrogram");
  if (!current || event.ctrlKey || event.altKey || event.metaKey) return;
  const shown = all("button.spectrogram").filter((button) => button.offsetParent);
  const index = shown.indexOf(current);
  const steps = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: shown.length - 1 };
  const next = shown[steps[event.key]];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}

document.addEventListener("DOMContentLoaded", () => {
  all("#theme").forEach(switchTheme);
  all("#class").forEach(filterClasses);
  chooseRuns();
  all("th[data-sorts]").forEach(sortBy);
  all("div.spectrogram").forEach(playable);
  document.addEventListener("keydown", followKeys);
});
