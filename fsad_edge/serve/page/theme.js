// Runs before the page is drawn, so that it never flashes in the other colours.
try {
  const theme = localStorage.getItem("fsad-edge-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // This browser stores nothing for pages.
}
