"""What is known about hardware without touching it: boards, bitstreams and their manifests, resources."""
