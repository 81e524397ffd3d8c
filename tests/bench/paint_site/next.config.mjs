// next/image uses the optimizer of Next.js, unless an image has another loader.
export default { images: { qualities: [75, 85] } };
