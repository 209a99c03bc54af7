"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  const setTheme = (theme) => {
    root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    setTheme(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]);
  });
  setTheme("auto");
  button.hidden = false;

  for (const gallery of document.querySelectorAll(".gallery")) {
    const pictures = [...gallery.querySelectorAll(".picture")];
    const filter = (group) => {
      gallery.classList.toggle("filtered", group !== "");
      for (const mark of gallery.querySelectorAll(".mark")) {
        mark.classList.toggle("off", group !== "" && mark.dataset.group !== group);
      }
      for (const picture of pictures) {
        picture.hidden = group !== "" && !picture.dataset.groups.includes(` ${group} `);
      }
      const count = pictures.filter((picture) => !picture.hidden).length;
      gallery.querySelector(".shown").textContent = count === 1 ? "1 image" : `${count} images`;
    };
    gallery.querySelector(".controls").hidden = false;
    gallery.querySelector(".groups").addEventListener("change", (event) => filter(event.target.value));
    gallery.querySelector(".targets")?.addEventListener("change", (event) => {
      gallery.dataset.targets = event.target.checked ? "on" : "off";
    });
    for (const arm of gallery.querySelectorAll("input[type=radio]")) {
      arm.addEventListener("change", () => {
        gallery.dataset.arm = arm.value;
      });
    }
    for (const enlarge of gallery.querySelectorAll(".enlarge")) {
      enlarge.hidden = false;
      enlarge.addEventListener("click", () => {
        const large = enlarge.closest(".picture").classList.toggle("large");
        enlarge.setAttribute("aria-pressed", String(large));
      });
    }
  }
})();
