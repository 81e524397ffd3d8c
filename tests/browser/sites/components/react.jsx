import { Picture } from "darkroom.js/react";
import { createRoot } from "react-dom/client";

const photo = new URLSearchParams(location.search).get("photo");

createRoot(document.querySelector("main")).render(
  <Picture base="https://img.example.com" src={photo} width={1600} height={1200} alt="A lake" />,
);
