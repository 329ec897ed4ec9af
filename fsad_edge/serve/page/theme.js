// Runs before anything is drawn, so that the page never flashes in the other colours.
const theme = localStorage.getItem("fsad-edge-theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
