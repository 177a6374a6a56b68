// The address holds the filter: for each new one an entry of the history, and "back" shows the one before.
(query) => {
  const own = [...new URLSearchParams(location.search)].filter(([name]) => name.startsWith("__")); // Gradio's
  const search = [query, new URLSearchParams(own).toString()].filter(Boolean).join("&");
  const now = [...new URLSearchParams(location.search)].filter(([name]) => !name.startsWith("__"));
  if (new URLSearchParams(now).toString() !== new URLSearchParams(query).toString()) {
    history.pushState(null, "", search ? `?${search}` : location.pathname);
    if (parent !== window) parent.postMessage({ queryString: query }, "https://huggingface.co"); // a Space's frame
  }
  if (!window.reloadsOnBack) {
    window.reloadsOnBack = true;
    addEventListener("popstate", () => location.reload());
  }
}
