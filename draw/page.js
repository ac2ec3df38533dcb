"use strict";
// Groups light up: those of what is pointed at, else those that a click has kept.
(() => {
  const carriers = [...document.querySelectorAll("[data-groups]")];
  const numbers = (item) => item.dataset.groups.split(" ").filter(Boolean);
  const about = document.getElementById("about");
  let kept = [];

  const light = (groups) => {
    const lit = new Set(groups);
    document.body.classList.toggle("on", lit.size > 0);
    for (const item of carriers) item.classList.toggle("lit", numbers(item).some((k) => lit.has(k)));
  };

  const keep = (item) => {
    kept = item ? numbers(item) : [];
    const row = item && item.tagName === "TR";
    const title = item && !row ? item.querySelector("title") : null;
    about.hidden = !title;
    about.textContent = title ? title.textContent : "";
    for (const section of document.querySelectorAll("section")) {
      section.hidden = !kept.includes(section.id.replace("group-", ""));
    }
    for (const other of carriers) other.classList.toggle("kept", other === item);
    light(kept);
    if (row) document.querySelector(`.box.g${kept[0]}`)?.scrollIntoView({ block: "center" });
    if (item) document.querySelector("aside").scrollTop = 0;
  };

  for (const item of carriers) {
    item.addEventListener("mouseenter", () => light(numbers(item)));
    item.addEventListener("mouseleave", () => light(kept));
    item.addEventListener("click", () => keep(item));
    item.addEventListener("keydown", (event) => event.key === "Enter" && keep(item));
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && keep(null));
})();
