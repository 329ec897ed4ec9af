// Runs before anything is drawn, so that the page never flashes in the other colours.
try {
  const theme = localStorage.getItem("fsad-edge-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // This browser keeps nothing for pages.
}
