"use client";
import { loader } from "darkroom.js/next";
export default loader({ base: "https://img.example.com" });
