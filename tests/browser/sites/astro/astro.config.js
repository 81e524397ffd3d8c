export default {
  image: { service: { entrypoint: "./src/image-service.js" } },
};
