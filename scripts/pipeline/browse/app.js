// `gr.HTML` runs this with `element`, `trigger` and `watch` for the gallery and for the dialog.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-open]");
  if (button) {
    document.documentElement.dataset.opened = button.dataset.open;
    trigger("open", { row: Number(button.dataset.open) });
  }
  else if (event.target.closest("[data-close]") || event.target.matches(".dialog")) trigger("close");
});
document.addEventListener("keydown", (event) => {
  const dialog = element.querySelector(".dialog");
  if (!dialog || event.ctrlKey || event.altKey || event.metaKey) return;
  const wanted = { Escape: ".close", ArrowLeft: ".previous", ArrowRight: ".next" }[event.key];
  if (wanted) {
    dialog.querySelector(wanted).click();
    event.preventDefault();
  } else if (event.key === "Tab") {
    // the rest of the page is behind the dialog
    const buttons = [...dialog.querySelectorAll("button:not([disabled])")];
    const edge = event.shiftKey ? buttons[0] : buttons.at(-1);
    const other = event.shiftKey ? buttons.at(-1) : buttons[0];
    if (document.activeElement === edge || !dialog.contains(document.activeElement)) {
      other.focus();
      event.preventDefault();
    }
  }
});
watch("value", () => {
  const dialog = element.querySelector(".dialog");
  if (dialog) dialog.focus();
  else if (document.activeElement === document.body) {
    // the dialog is closed: back to the image that was open
    document.querySelector(`.tiles [data-open="${document.documentElement.dataset.opened}"]`)?.focus();
  }
  const isGallery = element.querySelector(".tiles");
  if (isGallery && element.getBoundingClientRect().top < 0) element.scrollIntoView();
  if (!isGallery) document.documentElement.classList.toggle("has-dialog", Boolean(dialog));
});
